"""The sandbox's certificate and the private authority that signed it."""

from __future__ import annotations

import ssl

__all__ = ["Certificates"]


class Certificates:
    """An authority made for one sandbox, and a server's certificate for its addresses.

    Args:
        addresses: the IP addresses and host names that the certificate is good for.

    Raises:
        ModuleNotFoundError: the extra ``sandbox-tls`` is not installed.
    """

    def __init__(self, *addresses: str) -> None:
        try:
            import trustme
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "tls=True needs an extra: pip install 'deepcall-async[sandbox-tls]'", name="trustme"
            ) from None
        authority = trustme.CA(organization_name="deepcall-async sandbox")
        self.ca_pem: str = authority.cert_pem.bytes().decode("ascii")
        self.server_context: ssl.SSLContext = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(*addresses).configure_cert(self.server_context)

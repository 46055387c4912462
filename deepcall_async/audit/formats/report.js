(function(){"use strict";
var rank={critical:"0",high:"1",medium:"2",low:"3",info:"4"};
function value(row,i){var text=row.cells[i].textContent.trim();return rank[text]||text}
function compare(a,b){
if(a===""||b==="")return a===b?0:a===""?1:-1;
var m=Number(a.replace(/,/g,"")),n=Number(b.replace(/,/g,""));
return isNaN(m)||isNaN(n)?a.localeCompare(b):m-n}
document.querySelectorAll("table[data-sort]").forEach(function(table){
var heads=Array.from(table.tHead.rows[0].cells),body=table.tBodies[0];
heads.forEach(function(head,i){
var button=document.createElement("button");
button.type="button";button.textContent=head.textContent;
head.textContent="";head.appendChild(button);
button.addEventListener("click",function(){
var down=head.getAttribute("aria-sort")==="ascending";
heads.forEach(function(other){other.removeAttribute("aria-sort")});
head.setAttribute("aria-sort",down?"descending":"ascending");
Array.from(body.rows).map(function(row){return[value(row,i),row]}).sort(function(a,b){
if(a[0]===""||b[0]==="")return compare(a[0],b[0]);
return down?compare(b[0],a[0]):compare(a[0],b[0])}).forEach(function(pair){body.appendChild(pair[1])})})})});
var tools=document.getElementById("tools");
if(tools){
var rows=Array.from(document.getElementById("found").tBodies[0].rows);
var texts=rows.map(function(row){return row.textContent.toLowerCase()});
var words=document.getElementById("words"),grave=document.getElementById("grave"),shown=document.getElementById("shown");
var apply=function(){
var wanted=words.value.toLowerCase().split(/\s+/).filter(Boolean),left=0;
rows.forEach(function(row,i){
var ok=(!grave.value||row.cells[0].textContent.trim()===grave.value)&&wanted.every(function(word){return texts[i].indexOf(word)>=0});
row.hidden=!ok;if(ok)left++});
shown.textContent=left.toLocaleString("en")+" of "+rows.length.toLocaleString("en")+" rows"};
words.addEventListener("input",apply);grave.addEventListener("change",apply);
tools.hidden=false;apply()}
})();

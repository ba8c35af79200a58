"use strict";(self.rspackChunkipyrescue=self.rspackChunkipyrescue||[]).push([[266],{18(e,r,o){var t=o(19),a=o.n(t),i=o(20),p=(o.n(i))()(a());p.push([e.id,`/* Colours, fonts and sizes are the theme's own. */

/* The status button */

.jp-ipyrescue-status {
  display: flex;
  align-items: center;
  min-width: 13em;
  max-width: 28em;
  height: 100%;
  padding: 0 4px;
  border: 0;
  background: none;
  color: var(--jp-ui-font-color1);
  font-family: var(--jp-ui-font-family);
  font-size: var(--jp-ui-font-size1);
  line-height: 24px;
  white-space: nowrap;
  cursor: pointer;
}

.jp-ipyrescue-status::before {
  flex: none;
  width: 8px;
  height: 8px;
  margin-right: 6px;
  border-radius: 50%;
  background: var(--jp-ui-font-color3);
  content: '';
}

.jp-ipyrescue-status[data-state='protected']::before {
  background: var(--jp-success-color1);
}

.jp-ipyrescue-status[data-state='stale']::before {
  background: var(--jp-warn-color1);
}

.jp-ipyrescue-status[data-state='failing']::before {
  background: var(--jp-error-color1);
}

.jp-ipyrescue-status:hover {
  background: var(--jp-layout-color3);
}

.jp-ipyrescue-status:focus-visible,
.jp-ipyrescue-button:focus-visible,
.jp-ipyrescue-look:focus-visible,
.jp-ipyrescue-list:focus-visible,
.jp-ipyrescue-detail:focus-visible,
.jp-ipyrescue-dialog .jp-Dialog-body:focus-visible {
  outline: 1px solid var(--jp-brand-color1);
  outline-offset: -1px;
}

/* The dialogs */

.jp-ipyrescue-dialog .jp-Dialog-content {
  max-width: min(72rem, 94vw);
  max-height: 86vh;
}

.jp-ipyrescue-dialog p {
  margin: 0 0 8px;
}

.jp-ipyrescue-message {
  white-space: pre-line;
}

.jp-ipyrescue-error {
  color: var(--jp-error-color1);
}

.jp-ipyrescue-advice {
  margin: 0 0 8px;
  padding-left: 20px;
}

.jp-ipyrescue-report,
.jp-ipyrescue-source {
  margin: 0 0 8px;
  padding: 8px;
  overflow: auto;
  background: var(--jp-layout-color2);
  font-family: var(--jp-code-font-family);
  font-size: var(--jp-code-font-size);
  white-space: pre-wrap;
}

.jp-ipyrescue-death h3 {
  margin: 0 0 4px;
  font-size: var(--jp-ui-font-size2);
}

.jp-ipyrescue-death + .jp-ipyrescue-death {
  padding-top: 12px;
  border-top: 1px solid var(--jp-border-color2);
}

/* Tables */

.jp-ipyrescue-table {
  width: 100%;
  border-collapse: collapse;
}

.jp-ipyrescue-table caption {
  padding: 4px 0;
  color: var(--jp-ui-font-color2);
  text-align: left;
}

.jp-ipyrescue-table th,
.jp-ipyrescue-table td {
  padding: 4px 12px 4px 0;
  border-bottom: 1px solid var(--jp-border-color2);
  text-align: left;
  vertical-align: top;
}

.jp-ipyrescue-table thead th {
  position: sticky;
  top: 0;
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color2);
  font-weight: 600;
}

.jp-ipyrescue-table tbody th {
  font-weight: 400;
  overflow-wrap: anywhere;
}

.jp-ipyrescue-snapshots {
  width: min(66rem, 86vw);
  height: min(36rem, 64vh);
  display: flex;
  flex-direction: column;
}

.jp-ipyrescue-told {
  min-height: 1.4em;
}

.jp-ipyrescue-list {
  flex: 1 1 50%;
  min-height: 0;
  overflow: auto;
}

.jp-ipyrescue-detail {
  flex: 1 1 50%;
  min-height: 0;
  overflow: auto;
  margin-top: 8px;
  border-top: 2px solid var(--jp-border-color1);
}

.jp-ipyrescue-detail:empty {
  display: none;
}

/* The line above the table says it already. */
.jp-ipyrescue-list caption {
  position: absolute;
  clip-path: inset(50%);
}

.jp-ipyrescue-list tbody tr:hover,
.jp-ipyrescue-list .jp-mod-selected {
  background: var(--jp-layout-color2);
}

.jp-ipyrescue-short {
  white-space: nowrap;
}

.jp-ipyrescue-look {
  padding: 0;
  border: 0;
  background: none;
  color: var(--jp-content-link-color);
  font: inherit;
  white-space: nowrap;
  cursor: pointer;
}

.jp-ipyrescue-age {
  color: var(--jp-ui-font-color2);
  white-space: nowrap;
}

.jp-ipyrescue-table .jp-ipyrescue-actions {
  white-space: nowrap;
}

.jp-ipyrescue-button {
  min-width: 5.8em;
  margin-right: 4px;
  padding: 2px 6px;
  border: 1px solid var(--jp-border-color1);
  border-radius: var(--jp-border-radius);
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1);
  font: inherit;
  cursor: pointer;
}

.jp-ipyrescue-button:hover {
  background: var(--jp-layout-color3);
}

.jp-ipyrescue-button.jp-ipyrescue-forget {
  min-width: 7.8em;
}

.jp-ipyrescue-button.jp-mod-warn {
  background: var(--jp-layout-color1);
  border-color: var(--jp-error-color1);
  color: var(--jp-error-color1);
}

.jp-ipyrescue-badge {
  margin-right: 4px;
  padding: 0 6px;
  border: 1px solid var(--jp-border-color1);
  border-radius: var(--jp-border-radius);
  white-space: nowrap;
}

.jp-ipyrescue-interrupted {
  border-color: var(--jp-warn-color1);
}

.jp-ipyrescue-damaged,
.jp-ipyrescue-foreign {
  border-color: var(--jp-error-color1);
}
`,""]),o.d(r,{},{A:p})},20(e){e.exports=function(e){var r=[];return r.toString=function(){return this.map(function(r){var o="",t=void 0!==r[5];return r[4]&&(o+="@supports (".concat(r[4],") {")),r[2]&&(o+="@media ".concat(r[2]," {")),t&&(o+="@layer".concat(r[5].length>0?" ".concat(r[5]):""," {")),o+=e(r),t&&(o+="}"),r[2]&&(o+="}"),r[4]&&(o+="}"),o}).join("")},r.i=function(e,o,t,a,i){"string"==typeof e&&(e=[[null,e,void 0]]);var p={};if(t)for(var n=0;n<this.length;n++){var s=this[n][0];null!=s&&(p[s]=!0)}for(var c=0;c<e.length;c++){var u=[].concat(e[c]);t&&p[u[0]]||(void 0!==i&&(void 0===u[5]||(u[1]="@layer".concat(u[5].length>0?" ".concat(u[5]):""," {").concat(u[1],"}")),u[5]=i),o&&(u[2]&&(u[1]="@media ".concat(u[2]," {").concat(u[1],"}")),u[2]=o),a&&(u[4]?(u[1]="@supports (".concat(u[4],") {").concat(u[1],"}"),u[4]=a):u[4]="".concat(a)),r.push(u))}},r}},19(e){e.exports=function(e){return e[1]}},11(e,r,o){o.r(r);var t=o(12),a=o.n(t),i=o(13),p=o.n(i),n=o(14),s=o.n(n),c=o(15),u=o.n(c),l=o(16),d=o.n(l),f=o(17),y=o.n(f),v=o(18),h={};h.styleTagTransform=y(),h.setAttributes=u(),h.insert=s().bind(null,"head"),h.domAPI=p(),h.insertStyleElement=d(),a()(v.A,h);let j=v.A&&v.A.locals?v.A.locals:void 0;o.d(r,{},{default:j})},12(e){var r=[];function o(e){for(var o=-1,t=0;t<r.length;t++)if(r[t].identifier===e){o=t;break}return o}function t(e,t){for(var a={},i=[],p=0;p<e.length;p++){var n=e[p],s=t.base?n[0]+t.base:n[0],c=a[s]||0,u="".concat(s," ").concat(c);a[s]=c+1;var l=o(u),d={css:n[1],media:n[2],sourceMap:n[3],supports:n[4],layer:n[5]};if(-1!==l)r[l].references++,r[l].updater(d);else{var f=function(e,r){var o=r.domAPI(r);return o.update(e),function(r){r?(r.css!==e.css||r.media!==e.media||r.sourceMap!==e.sourceMap||r.supports!==e.supports||r.layer!==e.layer)&&o.update(e=r):o.remove()}}(d,t);t.byIndex=p,r.splice(p,0,{identifier:u,updater:f,references:1})}i.push(u)}return i}e.exports=function(e,a){var i=t(e=e||[],a=a||{});return function(e){e=e||[];for(var p=0;p<i.length;p++){var n=o(i[p]);r[n].references--}for(var s=t(e,a),c=0;c<i.length;c++){var u=o(i[c]);0===r[u].references&&(r[u].updater(),r.splice(u,1))}i=s}}},14(e){var r={};e.exports=function(e,o){var t=function(e){if(void 0===r[e]){var o=document.querySelector(e);if(window.HTMLIFrameElement&&o instanceof window.HTMLIFrameElement)try{o=o.contentDocument.head}catch(e){o=null}r[e]=o}return r[e]}(e);if(!t)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");t.appendChild(o)}},16(e){e.exports=function(e){var r=document.createElement("style");return e.setAttributes(r,e.attributes),e.insert(r,e.options),r}},15(e,r,o){e.exports=function(e){var r=o.nc;r&&e.setAttribute("nonce",r)}},13(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var r=e.insertStyleElement(e);return{update:function(o){var t,a,i;t="",o.supports&&(t+="@supports (".concat(o.supports,") {")),o.media&&(t+="@media ".concat(o.media," {")),(a=void 0!==o.layer)&&(t+="@layer".concat(o.layer.length>0?" ".concat(o.layer):""," {")),t+=o.css,a&&(t+="}"),o.media&&(t+="}"),o.supports&&(t+="}"),(i=o.sourceMap)&&"u">typeof btoa&&(t+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(i))))," */")),e.styleTagTransform(t,r,e.options)},remove:function(){var e;null===(e=r).parentNode||e.parentNode.removeChild(e)}}}},17(e){e.exports=function(e,r){if(r.styleSheet)r.styleSheet.cssText=e;else{for(;r.firstChild;)r.removeChild(r.firstChild);r.appendChild(document.createTextNode(e))}}}}]);
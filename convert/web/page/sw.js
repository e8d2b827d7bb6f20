// Keeps the page's files, so that it opens without a network. VERSION and FILES are filled in by the export.
// A host that is being copied to may hold files of two exports for a while: each is kept only if it has its hash.
'use strict'
// Pages beside this one on the same server have caches of their own.
const OWN = `edgefer ${registration.scope} `, VERSION = `${OWN}@VERSION@`
const FILES = @FILES@
self.addEventListener('install', event => event.waitUntil(
  caches.open(VERSION).then(cache => cache.addAll(Object.entries({ ...FILES, './': FILES['index.html'] }).map(([file, integrity]) => new Request(file, { cache: 'reload', integrity }))))
    .then(() => self.skipWaiting())))
self.addEventListener('activate', event => event.waitUntil(
  caches.keys().then(keys => Promise.all(keys.filter(key => key.startsWith(OWN) && key !== VERSION).map(key => caches.delete(key))))
    .then(() => self.clients.claim())))
self.addEventListener('fetch', event => {
  if (event.request.method === 'GET') event.respondWith(caches.open(VERSION).then(cache => cache.match(event.request, { ignoreSearch: true })).then(kept => kept ?? fetch(event.request)))
})

// A native EventSource that must show a credential and cannot set a header: by a session and by a ticket, over a restart,
// and until the credential is taken back.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bodies, openTab, until, untilOpen, untilSeen, useBrowser, watchFrames } from './browser.js';
import { Server } from './server.js';
import { Site, readerPage } from './site.js';

useBrowser();

const seqs = (seen) => bodies(seen).map((event) => event.seq);
const storedSeqs = (server) => server.events().filter(({ stream }) => stream === 'audits').map(({ seq }) => seq);
const reasons = (frames) =>
  frames.filter(({ type }) => type === 'evertail.notice').map(({ data }) => JSON.parse(data).reason);

/** Appends, restarts as kill -9 does, appends; the reader page must have it all, once. */
async function overRestart(server, page) {
  await server.append({ id: 'before' });
  await untilSeen(page, 1);
  await server.kill();
  await server.start();
  await server.append({ id: 'after' });
  assert.deepEqual(seqs(await untilSeen(page, 2)), storedSeqs(server));
}

/** Taken back as another process would; the EventSource is told, softly, and goes on asking. */
async function untilRefused(server, frames, page) {
  server.sql(`update tokens set revoked_at = created_at where id = '${server.credential.id}'`);
  await until(() => reasons(frames).filter((reason) => reason === 'unauthorized').length >= 2);
  assert.notEqual(await page.evaluate(() => source.readyState), 2, 'it has not given up');
}

test('a page of the server reads with a session, over a restart, until its token is revoked', async (t) => {
  const server = await Server.startAuthenticated(t);
  const page = await openTab(t);
  const frames = await watchFrames(page);
  await page.goto(server.page);
  const status = await page.evaluate(async (token) => {
    const headers = { authorization: `Bearer ${token}` };
    return (await fetch('/auth/session', { method: 'POST', headers })).status;
  }, server.token);
  assert.equal(status, 204);
  assert.equal(await page.evaluate(() => document.cookie), '', 'no script can read it');
  const [cookie] = await page.context().cookies();
  assert.deepEqual([cookie.name, cookie.httpOnly, cookie.sameSite], ['evertail_session', true, 'Strict']);
  frames.length = 0;
  await page.evaluate(() => {
    globalThis.seen = [];
    globalThis.source = new EventSource('/api/v1/audits?after=0');
    source.onmessage = ({ type, data, lastEventId }) => seen.push({ type, data, lastEventId });
  });
  await untilOpen(page);
  await overRestart(server, page);
  // What the page sends with the cookie carries its origin.
  const append = () =>
    page.evaluate(async () => (await fetch('/api/v1/audits', { method: 'POST', body: '{"id":"page"}' })).status);
  assert.equal(await append(), 201);
  await untilSeen(page, 3);
  await untilRefused(server, frames, page);
  assert.equal(await append(), 401);
});

test('a page of the same site and another origin has nothing of the session', async (t) => {
  const server = await Server.startAuthenticated(t);
  await server.append({ id: 'secret' });
  const page = await openTab(t);
  await page.goto(server.page);
  await page.evaluate(async (token) => {
    await fetch('/auth/session', { method: 'POST', headers: { authorization: `Bearer ${token}` } });
  }, server.token);
  // Another port is the same site, so that the browser sends the cookie along.
  await page.goto((await Site.start(t)).put(readerPage(`${server.api}/audits?after=0`)));
  const outcome = await page.evaluate(async (api) => {
    const post = { method: 'POST', body: '{"id":"forged"}', credentials: 'include', mode: 'no-cors' };
    await fetch(`${api}/audits`, post);
    const read = await fetch(`${api}/audits`, { credentials: 'include' }).then(() => 'read', () => 'refused');
    return read;
  }, server.api);
  assert.equal(outcome, 'refused');
  assert.equal(storedSeqs(server).length, 1, 'nothing was appended');
  assert.deepEqual(await page.evaluate(() => seen), []);
});

test('a page of another origin reads with a ticket, over a restart, until its token is revoked', async (t) => {
  const server = await Server.startAuthenticated(t);
  const headers = { authorization: `Bearer ${server.token}` };
  const body = JSON.stringify({ stream: 'audits', seconds: 300 });
  const answer = await fetch(`${server.page}auth/tickets`, { method: 'POST', headers, body });
  assert.equal(answer.status, 201);
  const { url } = await answer.json();
  const page = await openTab(t);
  const frames = await watchFrames(page);
  await page.goto((await Site.start(t)).put(readerPage(new URL(`${url}&after=0`, server.page).href)));
  await untilOpen(page);
  await overRestart(server, page);
  await untilRefused(server, frames, page);
});

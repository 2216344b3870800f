// Runs the signature check of docs/webhooks.md as it is documented.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';

const page = readFileSync(new URL('../../docs/webhooks.md', import.meta.url), 'utf8');
const example = /```js\n([^]*?)```/.exec(page)[1];
const { isOurs } = await import(`data:text/javascript,${encodeURIComponent(example)}`);

const secret = '3f0c7d1e9b2a4f6880717d5c3e2b1a09';
const body = '{"node":"ä","sent":1,"events":[]}';
const at = 1_764_000_000;
const sign = (t, text) =>
  `t=${t},v1=${createHmac('sha256', secret).update(`${t}.${text}`).digest('hex')}`;

test('requests with a valid signature are accepted, as text and as bytes', () => {
  assert(isOurs(sign(at, body), body, secret, at * 1000));
  assert(isOurs(sign(at, body), Buffer.from(body), secret, (at + 299) * 1000));
});

test('foreign, altered and old requests are refused', () => {
  const good = sign(at, body);
  const refused = [
    [good, body + ' ', secret, at],
    [good, body, secret + 'x', at],
    [good.replace(/^t=\d+/, `t=${at + 1}`), body, secret, at],
    [good, body, secret, at + 301],
    [good, body, secret, at - 301],
    [undefined, body, secret, at],
    ['', body, secret, at],
    [good.slice(0, -1), body, secret, at],
    [good + '00', body, secret, at],
  ];
  for (const [header, text, key, now] of refused)
    assert(!isOurs(header, text, key, now * 1000), `${header}`);
});

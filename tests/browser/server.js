// The real server as a process of its own: a temporary folder, a port that stays its own over restarts, and an end by
// process id whatever happens to the test.

import { spawn, execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { request } from 'node:https';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const BINARY =
  process.env.EVERTAIL_BIN || fileURLToPath(new URL('../../target/debug/evertail', import.meta.url));

/** The environment without settings of whoever runs the tests. */
const ENVIRONMENT = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !name.startsWith('EVERTAIL_')),
);

const running = new Set();
const killAll = () => running.forEach((child) => child.kill('SIGKILL'));
process.on('exit', killAll);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => process.exit(1));

export class Server {
  /** A server on an empty log, ended with the test `t`. */
  static async start(t, settings = {}) {
    const server = new Server(await freePort(), settings);
    t.after(() => server.kill().finally(() => rmSync(server.folder, { recursive: true })));
    await server.start();
    return server;
  }

  /** The same over https, with a certificate that it signed itself. */
  static async startSecure(t, settings = {}) {
    const server = new Server(await freePort(), settings);
    t.after(() => server.kill().finally(() => rmSync(server.folder, { recursive: true })));
    const certificate = join(server.folder, 'certificate.pem');
    const key = join(server.folder, 'key.pem');
    const names = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1'];
    const kind = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    execFileSync('openssl', ['req', '-x509', ...kind, '-keyout', key, '-out', certificate, ...names], { stdio: 'pipe' });
    Object.assign(server.settings, { EVERTAIL_TLS_CERTIFICATE: certificate, EVERTAIL_TLS_KEY: key });
    server.ca = readFileSync(certificate);
    server.page = server.page.replace('http:', 'https:');
    server.api = server.api.replace('http:', 'https:');
    await server.start();
    return server;
  }

  /** The same where nobody is let in without a credential; `server.token` may append to and read `audits`. */
  static async startAuthenticated(t, settings = {}) {
    const server = new Server(await freePort(), { EVERTAIL_AUTH: 'on', ...settings });
    t.after(() => server.kill().finally(() => rmSync(server.folder, { recursive: true })));
    server.credential = server.createToken('--append', 'audits', '--read', 'audits');
    server.token = server.credential.token;
    await server.start();
    return server;
  }

  /** Makes a token on the file, while the server does not run. */
  createToken(...grants) {
    const parts = ['token', 'create', '--name', 'test', '--file', this.file, ...grants];
    return JSON.parse(execFileSync(BINARY, parts, { cwd: this.folder, env: ENVIRONMENT, encoding: 'utf8' }));
  }

  constructor(port, settings) {
    this.folder = mkdtempSync(join(tmpdir(), 'evertail-browser-'));
    this.file = join(this.folder, 'evertail.db');
    this.port = port;
    this.settings = { ...settings };
    this.child = null;
    // What a page writes: the seed's page says localhost, not 127.0.0.1.
    this.api = `http://localhost:${port}/api/v1`;
    this.page = `http://localhost:${port}/`;
  }

  /** Starts it, again on the same port and file; returns once it serves. */
  async start() {
    const child = spawn(BINARY, [], {
      cwd: this.folder,
      env: {
        ...ENVIRONMENT,
        EVERTAIL_LISTEN: `127.0.0.1:${this.port}`,
        EVERTAIL_FILE: this.file,
        EVERTAIL_LOG_FORMAT: 'json',
        // A test should not wait for the delay that spreads herds, nor fail on a disk that is nearly full.
        EVERTAIL_RETRY_SECONDS_MIN: '0',
        EVERTAIL_RETRY_SECONDS_MAX: '1',
        EVERTAIL_DISK_FREE_BYTES_MIN: '0',
        ...this.settings,
      },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    running.add(child);
    this.child = child;
    this.ended = new Promise((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) => resolve(signal ?? code));
    }).finally(() => running.delete(child));
    await new Promise((resolve, reject) => {
      const said = [];
      createInterface({ input: child.stderr }).on('line', (line) => {
        said.push(line);
        if (line.includes('"serving"')) {
          const { page, api } = JSON.parse(line);
          if (api === `${page}api/v1` && new URL(api).port === String(this.port)) resolve();
          else reject(new Error(`it says that it serves elsewhere: ${line}`));
        }
      });
      this.ended.then((how) => reject(new Error(`the server ended (${how}):\n${said.join('\n')}`)), reject);
    });
  }

  /** kill -9. */
  async kill() {
    this.child.kill('SIGKILL');
    await this.ended;
  }

  /** SIGTERM; returns the exit code. */
  async stop() {
    this.child.kill('SIGTERM');
    return this.ended;
  }

  /** Appends as `curl -d` does, with a form content type; returns the receipt. */
  async append(event, stream = 'audits') {
    const headers = { 'content-type': 'application/x-www-form-urlencoded' };
    if (this.token) headers.authorization = `Bearer ${this.token}`;
    const options = { method: 'POST', headers };
    const body = JSON.stringify(event);
    const response = this.ca
      ? await fetchSecure(`${this.api}/${stream}`, { ...options, ca: this.ca }, body)
      : await fetch(`http://127.0.0.1:${this.port}/api/v1/${stream}`, { ...options, body });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${response.status}: ${JSON.stringify(answer)}`);
    return answer;
  }

  /** Runs SQL in Debian's sqlite3, as another process would; returns the rows. */
  sql(text) {
    const rows = execFileSync('sqlite3', ['-bail', '-json', '-cmd', '.timeout 5000', this.file, text], {
      encoding: 'utf8',
      maxBuffer: 1 << 28,
    });
    return rows.trim() ? JSON.parse(rows) : [];
  }

  /** The table as a reader should have been given it. */
  events() {
    const columns = 'seq, stream, id, type, created_at, data';
    return this.sql(`select ${columns} from events order by seq`).map((row) => {
      const { id, data, ...event } = row;
      return { ...event, ...(id !== null && { id }), ...(data !== null && { data: JSON.parse(data) }) };
    });
  }
}

/** What `fetch` cannot: trust one certificate. */
function fetchSecure(url, options, body) {
  return new Promise((resolve, reject) => {
    const sending = request(url, options, async (response) => {
      const chunks = await response.toArray();
      resolve(new Response(Buffer.concat(chunks), { status: response.statusCode }));
    });
    sending.on('error', reject);
    sending.end(body);
  });
}

/**
 * A free port below the range that the kernel gives to outgoing connections. A client that retries a port of that range
 * while nobody listens can, once in many thousand times, connect to itself, and then the server cannot come back to it.
 */
async function freePort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 20_000);
    const isFree = await new Promise((resolve) => {
      const probe = createServer().on('error', () => resolve(false));
      probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
    });
    if (isFree) return port;
  }
}

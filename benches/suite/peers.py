"""The servers: how each is started and where it listens. Each runs alone and from a folder that is made anew."""

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request

from . import tools

PORT = 18950
# The stack that stops what is still running when the suite ends.
RUNNING = None


class Server:
    """One that runs: its processes, and the base of its URLs."""

    def __init__(self, name, process, folder):
        self.name = name
        self.process = process
        self.folder = folder
        self.url = f'http://127.0.0.1:{PORT}'
        self.address = f'127.0.0.1:{PORT}'

    def pids(self):
        """The process and its children: nginx works in those."""
        children = subprocess.run(['ps', '--ppid', str(self.process.pid), '-o', 'pid='], stdout=subprocess.PIPE, text=True)
        return [self.process.pid, *map(int, children.stdout.split())]

    def watched(self):
        return [word for pid in self.pids() for word in ('--server-pid', pid)]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextlib.contextmanager
def running(name, command, keep=None, env=None):
    """Starts a server, waits until it answers, and stops it. `keep` is a folder that outlives it."""
    folder = keep or tools.BENCH / 'run' / name
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in command(folder)]
    with (folder / 'log').open('w') as log:
        process = subprocess.Popen(words, stdout=log, stderr=log, cwd=folder, env=env, preexec_fn=tools.raise_descriptors)
    server = Server(name, process, folder)
    RUNNING.callback(server.stop)
    try:
        wait_for_port(process, folder)
        yield server
    finally:
        server.stop()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)
        # The port must be free for the next.
        time.sleep(0.2)


def wait_for_port(process, folder):
    deadline = time.monotonic() + 30
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(('127.0.0.1', PORT)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f'{folder.name} does not start: {(folder / "log").read_text()[-500:]}')
        time.sleep(0.01)


def evertail(binary=None, keep=None, name='evertail', flags=()):
    """With its defaults, but for room for ten thousand readers and the connection that appends."""
    def command(folder):
        return [binary or tools.EVERTAIL, 'serve', '--listen', f'127.0.0.1:{PORT}', '--file', folder / 'evertail.db',
                '--connections-max', '12000', '--log', 'error', *flags]

    return running(name, command, keep=keep, env={'PATH': os.environ['PATH']})


def without_storage():
    return evertail(binary=tools.WITHOUT_STORAGE, name='without-storage')


def naive():
    return running('naive', lambda folder: [tools.PEERS, 'naive', f'127.0.0.1:{PORT}', folder / 'naive.db'])


def nats(name, sync):
    def command(folder):
        config = folder / 'nats.conf'
        config.write_text(f'listen: "127.0.0.1:{PORT}"\njetstream {{ store_dir: "{folder}/js"{sync} }}\n')
        return [tools.NATS, '-c', config]

    return running(name, command)


def nats_default():
    return nats('nats', '')


def nats_always():
    return nats('nats-always', ', sync_interval: always')


def redis():
    return running('redis', lambda folder: [
        'redis-server', '--port', PORT, '--bind', '127.0.0.1', '--dir', folder, '--appendonly', 'yes', '--appendfsync',
        'always', '--save', ''])


@contextlib.contextmanager
def durable_streams():
    def command(folder):
        script = tools.ROOT / 'benches' / 'peers' / 'durable-streams.mjs'
        return ['node', script, PORT, folder / 'streams', tools.NODE_MODULES]

    with running('durable-streams', command) as server:
        for stream in ('bench', 'replay'):
            make = urllib.request.Request(f'{server.url}/{stream}', method='PUT', headers={'content-type': 'application/json'})
            urllib.request.urlopen(make).close()
        yield server


NGINX = """
daemon off; master_process on; worker_processes 2; worker_rlimit_nofile 40000; user {user};
pid {folder}/pid; error_log {folder}/error.log;
load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
events {{ worker_connections 20000; }}
http {{
    access_log off; keepalive_requests 1000000000; client_body_buffer_size 64k; nchan_shared_memory_size 1024M;
    client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
    uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location = /204 {{ return 204; }}
        location = /pub {{
            nchan_publisher; nchan_channel_id $arg_id;
            nchan_message_buffer_length 100000; nchan_message_timeout 0;
        }}
        location = /sub {{
            nchan_subscriber eventsource; nchan_channel_id $arg_id; nchan_subscriber_first_message newest;
        }}
        location = /all {{
            nchan_subscriber eventsource; nchan_channel_id $arg_id; nchan_subscriber_first_message oldest;
        }}
    }}
}}
"""


def nchan():
    def command(folder):
        config = folder / 'nginx.conf'
        config.write_text(NGINX.format(folder=folder, port=PORT, user=getpass.getuser()))
        return [shutil.which('nginx', path=os.environ['PATH'] + ':/usr/sbin'), '-c', config, '-p', folder]

    return running('nchan', command)

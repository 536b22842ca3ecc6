"""What the results say: the goals table, the figures behind it, a plot, the archive."""

import os
import platform
import shutil
import subprocess
import sys
import time

from . import plot, tools


def thousands(value, unit=''):
    if value is None:
        return '–'
    text = f'{value:,.0f}' if abs(value) >= 100 else f'{value:.3g}'
    return f'{text}{unit}'


class Goals:
    """The rows of the table. A row without a value was not measured."""

    def __init__(self, results):
        self.results = results
        self.rows = []

    def row(self, what, ours, theirs, against, wanted, is_most=False, unit='', ratio=None):
        """`ours / theirs` at least `wanted`, or at most it."""
        if ours is None or not theirs:
            return
        ratio = ours / theirs if ratio is None else ratio
        is_reached = ratio <= wanted if is_most else ratio >= wanted
        self.rows.append((
            what, thousands(ours, unit), f'{against}: {thousands(theirs, unit)}', f'{ratio:.2f}',
            f'{"at most" if is_most else "at least"} {wanted:g}', 'yes' if is_reached else '**no**'))

    def gather(self):
        median = self.results.median
        self.appending(median)
        self.reading(median)
        self.following(median)
        return self.rows

    def appending(self, median):
        def acks(server, connections=256):
            return median('append', server, 'acks_per_second', connections=connections)

        ours = acks('evertail')
        what = 'acks/s, 256 connections'
        self.row(what, ours, acks('without-storage'), 'without storage', 0.85)
        self.row(what, ours, acks('nats'), 'NATS without fsync', 1)
        for server, name in (('nats-always', 'NATS, fsync'), ('naive', 'naive SQLite'), ('durable-streams', 'durable-streams')):
            self.row(what, ours, acks(server), name, 10)
        one = median('append', 'evertail', 'ack_p50_us', connections=1)
        exchange = median('append', 'without-storage', 'ack_p50_us', connections=1)
        sync = median('fsync', 'disk', 'fsync_p50_us')
        if exchange and sync:
            self.row('p50 of an ack, one connection', one, exchange + sync, 'exchange + fsync', 1.5, True, ' µs')
        ids = median('ids', 'evertail', 'acks_per_second', connections=256)
        self.row('acks/s with ids, 256 connections', ids, ours, 'without ids', 0.8)
        batch = self.results.best('batch', 'evertail', 'acks_per_second', 'connections')
        self.row('events/s in NDJSON batches of 1,000', batch, median('ceiling', 'c-loop', 'rows_per_second'), 'C loop', 0.6)
        for catch_up in (0, 64):
            p99, p50 = (median('sustained', 'evertail', f'ack_{name}_us', catch_up=catch_up) for name in ('p99', 'p50'))
            self.row(f'p99 of an ack, half load, {catch_up} catching up', p99, p50, 'p50', 5, True, ' µs')
        self.row('WAL under that load', median('sustained', 'evertail', 'wal_max_mib', catch_up=64), 64, 'warned above', 1, True,
                 ' MiB')

    def reading(self, median):
        def replay(server, readers=1, **labels):
            return median('replay', server, 'events_per_second', readers=readers, **labels)

        for accept in ('sse', 'ndjson'):
            one = replay('evertail', accept=accept)
            for server in ('nats', 'redis', 'durable-streams', 'nchan'):
                self.row(f'replay, {accept}, events/s', one, replay(server), server, 1)
            self.row(f'replay, {accept}, 8 readers, events/s', replay('evertail', 8, accept=accept), one, 'one reader', 1.5)
        self.row('replay of 1% of the log, seconds', median('rare', 'evertail', 'seconds', part='rare'),
                 median('rare', 'evertail', 'seconds', part='dense'), 'as many events of a dense stream', 3, True)

    def following(self, median):
        best = self.results.best
        for readers in (100, 1000, 10000):
            ours, theirs = (best('fanout', server, 'delivered_per_second', 'variant', readers=readers)
                            for server in ('evertail', 'nchan'))
            self.row(f'deliveries/s, {readers:,} readers', ours, theirs, 'nchan', 3)
        for readers in (1000, 10000):
            for name in ('p50', 'p99'):
                ours, theirs = (median('slow', server, f'end_to_end_{name}_us', readers=readers) for server in ('evertail', 'nchan'))
                self.row(f'{name} end to end, 10/s, {readers:,} readers', ours, theirs, 'nchan', 1, True, ' µs')
        for when in ('idle', 'after'):
            ours, theirs = (median('slow', server, f'server_rss_{when}_kib_per_reader', readers=10000)
                            for server in ('evertail', 'nchan'))
            self.row(f'server memory, each of 10,000, {when}', ours, theirs, 'nchan', 1, True, ' KiB')
        kernel = median('slow', 'evertail', 'kernel_tcp_after_kib_per_reader', readers=10000)
        if kernel is not None:
            # Little above or below nothing, as other sockets come and go.
            self.row('kernel memory, each of 10,000, after', max(kernel, 0), 32, 'its bound', 1, True, ' KiB')
        self.row('herd of 5,000 answered after, s', median('herd', 'evertail', 'all_opened_after_seconds'),
                 median('herd', 'evertail', 'connected_after_seconds'), 'connecting without history', 2, True)
        # 5,000 readers are owed 25 M events, some 8 GB: they are live when those are through.
        live = median('herd', 'evertail', 'all_live_after_seconds')
        fanned = best('fanout', 'evertail', 'delivered_per_second', 'variant', readers=10000)
        owed = median('herd', 'evertail', 'caught_up_events')
        if fanned and owed:
            self.row('herd of 5,000 live after, s', live, owed / fanned, 'what it missed at the rate of the fan-out', 2, True)
        self.row('p99 of an ack during the herd', median('herd', 'evertail', 'ack_during_p99_us'),
                 median('herd', 'evertail', 'ack_before_p99_us'), 'before', 2, True, ' µs')


def figures(results):
    """Medians of everything by server, as tables."""
    out = []
    servers = ['evertail', 'without-storage', 'naive', 'durable-streams', 'nats-always', 'redis', 'nats', 'nchan']
    measured = [name for name in servers if results.values('append', name, 'acks_per_second')]
    if measured:
        out += ['### Acks a second', '', '| server | 1 | 16 | 64 | 256 connections | p99 at 256 |', '|---|---|---|---|---|---|']
        for name in measured:
            cells = [thousands(results.median('append', name, 'acks_per_second', connections=n)) for n in (1, 16, 64, 256)]
            p99 = thousands(results.median('append', name, 'ack_p99_us', connections=256), ' µs')
            out.append(f'| {name} | {" | ".join(cells)} | {p99} |')
        out.append('')
    measured = [name for name in servers if results.values('fanout', name, 'delivered_per_second')]
    if measured:
        out += ['### Deliveries a second', '', '| server, appending | 100 | 1,000 | 10,000 readers | server CPU at 1,000, µs each |',
                '|---|---|---|---|---|']
        for name in measured:
            variants = sorted({r['variant'] for r in results.all if r['row'] == 'fanout' and r['server'] == name})
            for variant in variants:
                cells = [thousands(results.median('fanout', name, 'delivered_per_second', readers=n, variant=variant))
                         for n in (100, 1000, 10000)]
                cpu = results.median('fanout', name, 'server_cpu_us_per_delivery', readers=1000, variant=variant)
                out.append(f'| {name}, {variant} | {" | ".join(cells)} | {thousands(cpu)} |')
        out.append('')
    growth = [result for result in results.all if result['row'] == 'growth']
    if growth:
        out += ['### Growth', '', '| events | ids | acks/s | resume, ms | start, s |', '|---|---|---|---|---|']
        out += [f'| {r["events"]:,} | {"yes" if r["ids"] else "no"} | {thousands(r.get("acks_per_second"))} | {r["resume_ms"]} | '
                f'{r["start_seconds"]} |' for r in growth]
        out.append('')
    return out


def generator(results):
    rate = results.median('generator', 'nchan', 'acks_per_second', connections=256)
    if not rate:
        return []
    cores = results.median('generator', 'nchan', 'bench_cores', connections=256)
    ours = results.median('append', 'evertail', 'bench_cores', connections=256)
    share = f' While it drives Evertail at 256 connections it takes {ours:.2f} cores.' if ours else ''
    return [f'The load generator reaches {rate:,.0f} requests a second against nginx answering 204, with {cores:.2f} cores.{share}',
            '']


def version(*command):
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else '?'


def machine():
    """What it ran on, without a name of the machine or a path of it."""
    model = next((line.split(':')[1].strip() for line in open('/proc/cpuinfo') if line.startswith('model name')), '?')
    memory = int(open('/proc/meminfo').readline().split()[1]) // (1 << 20)
    nginx = shutil.which('nginx', path=os.environ['PATH'] + ':/usr/sbin')
    commit = version('git', '-C', tools.ROOT, 'rev-parse', '--short', 'HEAD')
    changed = subprocess.run(['git', '-C', tools.ROOT, 'diff', '--quiet', 'HEAD']).returncode != 0
    return [
        f'- {os.cpu_count()} cores of {model}, {memory} GiB, Linux {platform.release().split("-")[0]}',
        f'- Evertail {commit}{" with changes" if changed else ""}, {version("rustc", "--version")}, release profile',
        f'- {version(nginx, "-v")} with nchan of Debian; {version("redis-server", "--version")[:28]}; '
        f'NATS {tools.NATS_VERSION}; durable-streams {tools.DURABLE_STREAMS_VERSION} on Node {version("node", "--version")}',
    ]


def write(results, is_quick, rounds, archive):
    goals = Goals(results).gather()
    failed = [result for result in results.all if result.get('failures')]
    lines = ['# Evertail beside its peers', '']
    if is_quick:
        lines += ['A quick run: one short round, good to see what is far off, not to quote.', '']
    lines += [f'All on one machine, over loopback, each server alone, in turns; medians of {rounds} round(s); events of 200 bytes.',
              '', *machine(), '- `' + ' '.join(['scripts/bench', *sys.argv[1:]]) + '`',
              '', '![Acks and deliveries a second](plot.svg)', '', '## Goals', '',
              '| what | Evertail | beside | ratio | goal | reached |', '|---|---|---|---|---|---|',
              *(f'| {" | ".join(row)} |' for row in goals), '', '## Figures', '', *figures(results), *generator(results)]
    if failed:
        lines += ['## Runs that failed', '']
        lines += [f'- {r["row"]} {r["server"]}: {"; ".join(r["failures"])}' for r in failed] + ['']
    lines += ['Every result is in `results.jsonl`, as `evertail bench` printed it.', '']
    text = '\n'.join(lines)
    folder = results.file.parent
    (folder / 'README.md').write_text(text)
    (folder / 'plot.svg').write_text(plot.draw(results))
    print(text)
    if archive:
        name = f'{time.strftime("%Y-%m-%d")}-{os.cpu_count()}-core-vm'
        place = tools.ROOT / 'docs' / 'benchmarks' / name
        place.mkdir(parents=True, exist_ok=True)
        for file in ('README.md', 'plot.svg', 'results.jsonl'):
            shutil.copy(folder / file, place / file)
        tools.say(f'archived in docs/benchmarks/{name}')

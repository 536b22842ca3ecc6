"""The rows of the goals table: what is run for each, on which server."""

import time
import urllib.request

from . import peers, tools

CONNECTIONS = (1, 16, 64, 256)
READERS = (100, 1000, 10000)
# The goals are ratios at 256 connections, and the machine changes its speed: there everything is measured so often.
ROUNDS_AT_256 = 5
# How far producers of a saturating run may be ahead: what is appended must be delivered before the run is over.
AHEAD = {100: 5000, 1000: 1000, 10000: 200}


class Suite:
    def __init__(self, results, is_quick, rounds):
        self.results = results
        self.is_quick = is_quick
        self.rounds = rounds
        tools.raise_descriptors()

    def length(self, seconds):
        """A short run gives less exact figures, and all of them in minutes."""
        return seconds / 3 if self.is_quick else seconds

    def bench(self, row, server, command, *flags, labels=None, timeout=600):
        result = tools.run(tools.EVERTAIL, 'bench', command, '--json', *flags, *server.watched(), timeout=timeout)
        return self.results.add(row, server.name, result, **(labels or {}))


def at_evertail(server):
    return ['--url', server.url]


def at_nchan(server, channel, command='append'):
    flags = ['--append-url', f'{server.url}/pub?id={channel}', '--bare', '--content-type', 'application/json']
    return flags + (['--tail-url', f'{server.url}/sub?id={channel}', '--allow-loss'] if command == 'tail' else [])


def bare(path):
    return lambda server: ['--append-url', f'{server.url}{path}', '--bare', '--content-type', 'application/json']


def append(suite):
    """Acks a second at 1 to 256 connections; with ids; in batches; against the ceilings."""
    seconds = suite.length(3)
    load = ['--seconds', seconds, '--warmup', '0.5']
    servers = [
        (peers.evertail, at_evertail),
        (peers.naive, bare('/bench')),
        (peers.durable_streams, bare('/bench')),
        (peers.nchan, lambda server: at_nchan(server, 'append')),
    ]
    if tools.WITHOUT_STORAGE.exists():
        servers.insert(1, (peers.without_storage, at_evertail))
    drivers = [(peers.nats_default, 'nats-append'), (peers.nats_always, 'nats-append'), (peers.redis, 'redis-append')]
    for round in range(max(suite.rounds, ROUNDS_AT_256)):
        is_further = round >= suite.rounds
        for start, flags in servers:
            with start() as server:
                for connections in CONNECTIONS[-1:] if is_further else CONNECTIONS:
                    labels = {'round': round, 'connections': connections}
                    suite.bench('append', server, 'append', *flags(server), *load, '--connections', connections, labels=labels)
                if start is peers.evertail and not is_further:
                    append_more(suite, server, load, round)
        for start, driver in drivers:
            with start() as server:
                for connections in CONNECTIONS[-1:] if is_further else CONNECTIONS:
                    result = tools.run(tools.PEERS, driver, server.address, connections, seconds)
                    suite.results.add('append', server.name, result, round=round, connections=connections)
        if not is_further:
            ceilings(suite, round, seconds)


def append_more(suite, server, load, round):
    for connections in (64, 256):
        suite.bench('ids', server, 'append', *at_evertail(server), *load, '--ids', '--connections', connections,
                    labels={'round': round, 'connections': connections})
    for connections in (1, 2, 4):
        suite.bench('batch', server, 'append', *at_evertail(server), *load, '--batch', '1000', '--connections', connections,
                    labels={'round': round, 'connections': connections})


def ceilings(suite, round, seconds):
    """Rows into the same table without HTTP; what one fsync costs."""
    with peers.evertail() as server:
        folder = server.folder
        server.stop()
        suite.results.add('ceiling', 'c-loop', tools.run(tools.CEILING, folder / 'evertail.db', seconds), round=round)
        suite.results.add('fsync', 'disk', tools.run(tools.PEERS, 'fsync', folder / 'fsync'), round=round)


def generator(suite):
    """What the load generator can do against a server that does nothing."""
    with peers.nchan() as server:
        for connections in CONNECTIONS:
            suite.bench('generator', server, 'append', *bare('/204')(server), '--seconds', suite.length(3), '--warmup', '0.5',
                        '--connections', connections, labels={'connections': connections})


def sustained(suite):
    """Two minutes at half of what it can, with trimming, and with 64 readers of history."""
    capacity = suite.results.median('append', 'evertail', 'acks_per_second', connections=256)
    with peers.evertail() as server:
        if not capacity:
            probe = suite.bench('capacity', server, 'append', *at_evertail(server), '--connections', 256, '--seconds', 3)
            capacity = probe['acks_per_second']
    for catch_up in (0, 64):
        # Half a minute's worth is kept, so that most of the time what comes is what goes.
        with peers.evertail(flags=['--retention-events', int(capacity / 2 * suite.length(30))]) as server:
            suite.bench('sustained', server, 'mixed', *at_evertail(server), '--rate', int(capacity / 2), '--connections', 256,
                        '--readers', 1, '--catch-up', catch_up, '--seconds', 120 if not suite.is_quick else 15,
                        '--file', server.folder / 'evertail.db', labels={'catch_up': catch_up})


def replay(suite):
    """The whole log, read as fast as it comes."""
    events = 200_000 if suite.is_quick else 1_000_000
    small = events // 10
    readers = (1, 8)
    for round in range(suite.rounds):
        with peers.evertail() as server:
            for accept in ('sse', 'ndjson'):
                for count in readers:
                    suite.bench('replay', server, 'replay', *at_evertail(server), '--events', events, '--accept', accept,
                                '--readers', count, labels={'round': round, 'readers': count, 'accept': accept})
        for start, driver in ((peers.nats_default, 'nats-replay'), (peers.redis, 'redis-replay')):
            with start() as server:
                for count in readers:
                    result = tools.run(tools.PEERS, driver, server.address, events, count)
                    suite.results.add('replay', server.name, result, round=round, readers=count)
        with peers.durable_streams() as server:
            suite.bench('replay', server, 'replay', *bare('/replay')(server)[:3], '--array', '--events', small,
                        '--tail-url', f'{server.url}/replay?offset=-1', labels={'round': round, 'readers': 1})
        with peers.nchan() as server:
            suite.bench('replay', server, 'replay', *at_nchan(server, 'replay')[:3], '--batch', 1, '--events', small // 5,
                        '--tail-url', f'{server.url}/all?id=replay', labels={'round': round, 'readers': 1})


def rare(suite):
    """A stream that is one in a hundred events, against as many events of a dense stream."""
    events = 1_000_000 if suite.is_quick else 10_000_000
    # Filling takes long, so the file is kept from run to run.
    keep = tools.BENCH / 'keep' / f'rare-{events}'
    for round in range(suite.rounds):
        with peers.evertail(keep=keep) as server:
            for part, query in (('rare', 'stream=rare'), ('dense', f'stream=bench&limit={events // 100}')):
                suite.bench('rare', server, 'replay', *at_evertail(server), '--events', events, '--rare', 100, '--query', query,
                            labels={'round': round, 'part': part}, timeout=1200)


def fanout(suite):
    """As many deliveries as go, to 100, 1,000 and 10,000 readers."""
    # Each server is given events as suits it best; the better counts.
    variants = {
        'evertail': [('batch', ['--connections', 2, '--batch', 100]), ('single', ['--connections', 16])],
        'nchan': [('4', ['--connections', 4]), ('16', ['--connections', 16])],
    }
    for round in range(suite.rounds):
        for readers in READERS:
            for start in (peers.evertail, peers.nchan):
                for variant, load in variants[start.__name__]:
                    with start() as server:
                        where = at_evertail(server) if start is peers.evertail else at_nchan(server, 'fan', 'tail')
                        suite.bench('fanout', server, 'tail', *where, *load, '--readers', readers, '--ahead', AHEAD[readers],
                                    '--seconds', suite.length(4), labels={'round': round, 'readers': readers, 'variant': variant})


def slow(suite):
    """Ten events a second to many readers: latency and memory."""
    for round in range(suite.rounds):
        for readers in (1000, 10000):
            for start in (peers.evertail, peers.nchan):
                with start() as server:
                    where = at_evertail(server) if start is peers.evertail else at_nchan(server, 'slow', 'tail')
                    suite.bench('slow', server, 'tail', *where, '--rate', 10, '--readers', readers, '--settle', 2,
                                '--seconds', suite.length(9), labels={'round': round, 'readers': readers})


def herd(suite):
    """Five thousand readers come back at once."""
    for round in range(suite.rounds):
        with peers.evertail() as server:
            suite.bench('herd', server, 'tail', *at_evertail(server), '--reconnect', '--rate', 5, '--readers', 5000,
                        '--seconds', 8, labels={'round': round, 'readers': 5000})


def growth(suite):
    """Append, resume and start as the log grows."""
    keep = tools.BENCH / 'keep' / 'growth'
    for events in (10 ** power for power in range(4, 7 if suite.is_quick else 9)):
        with peers.evertail(keep=keep) as server:
            # Filled by what reads it, to no more than is missing.
            tools.run(tools.EVERTAIL, 'bench', 'replay', '--url', server.url, '--events', events, '--query', 'limit=1',
                      timeout=3600)
        begun = time.monotonic()
        with peers.evertail(keep=keep) as server:
            urllib.request.urlopen(f'{server.url}/readyz').close()
            start_seconds = time.monotonic() - begun
            resume = []
            for _ in range(20):
                begun = time.monotonic()
                urllib.request.urlopen(f'{server.url}/api/v1/events/{events // 2}').close()
                reading = urllib.request.Request(f'{server.url}/api/v1/events?limit=1', headers={
                    'accept': 'text/event-stream', 'last-event-id': str(events // 2)})
                urllib.request.urlopen(reading).read()
                resume.append(time.monotonic() - begun)
            labels = {'events': events, 'start_seconds': round(start_seconds, 4), 'resume_ms': round(sorted(resume)[10] * 1e3, 3)}
            for ids in ([], ['--ids']):
                suite.bench('growth', server, 'append', *at_evertail(server), *ids, '--connections', 64,
                            '--seconds', suite.length(3), labels={**labels, 'ids': bool(ids)})


ROWS = {
    'generator': generator, 'append': append, 'sustained': sustained, 'replay': replay, 'rare': rare, 'fanout': fanout,
    'slow': slow, 'herd': herd, 'growth': growth,
}

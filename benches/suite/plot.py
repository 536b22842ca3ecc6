"""The plot: bars of acks and deliveries a second, as SVG that reads in light and dark."""

WIDTH = 760
BAR = 18
ROW = 26
LABEL = 190
STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .head { font-weight: 600 }
  .ours { fill: #1a7f5a } .durable { fill: #57606a } .memory { fill: #b6bdc5 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 }
    .ours { fill: #3fb68b } .durable { fill: #9da7b1 } .memory { fill: #545d68 }
  }
"""
APPEND = [
    ('evertail', 'Evertail', 'ours'), ('redis', 'Redis Streams, fsync', 'durable'), ('nats-always', 'NATS JetStream, fsync', 'durable'),
    ('naive', 'naive SQLite', 'durable'), ('durable-streams', 'durable-streams', 'durable'),
    ('nats', 'NATS JetStream, no fsync', 'memory'), ('nchan', 'nchan, memory', 'memory'),
]
FOLLOW = [('evertail', 'Evertail', 'ours'), ('nchan', 'nchan, memory', 'memory')]


def bars(title, values, top):
    """A group of bars, and where the next one begins."""
    out = [f'<text class="head" x="0" y="{top + 14}">{title}</text>']
    top += ROW
    largest = max((value for _, value, _ in values), default=1)
    for name, value, kind in values:
        length = max(1, value / largest * (WIDTH - LABEL - 90))
        out.append(f'<text x="0" y="{top + 14}">{name}</text>')
        out.append(f'<rect class="{kind}" x="{LABEL}" y="{top}" width="{length:.1f}" height="{BAR}" rx="2"/>')
        out.append(f'<text x="{LABEL + length + 8:.1f}" y="{top + 14}">{value:,.0f}</text>')
        top += ROW
    return out, top + 14


def draw(results):
    groups = []
    acks = [(name, results.median('append', server, 'acks_per_second', connections=256), kind) for server, name, kind in APPEND]
    groups.append(('Acks a second, 256 connections', acks))
    for readers in (100, 1000, 10000):
        given = [(name, results.best('fanout', server, 'delivered_per_second', 'variant', readers=readers), kind)
                 for server, name, kind in FOLLOW]
        groups.append((f'Deliveries a second, {readers:,} readers', given))
    body, top = [], 4
    for title, values in groups:
        values = [value for value in values if value[1]]
        if values:
            out, top = bars(title, values, top)
            body += out
    body.append(f'<text x="0" y="{top + 14}">Green: Evertail, fsynced. Dark: fsynced before the ack. Pale: not.</text>')
    height = top + 24
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
            f'aria-label="Acks and deliveries a second">\n<style>{STYLE}</style>\n' + '\n'.join(body) + '\n</svg>\n')

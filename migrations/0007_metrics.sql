-- Who may read the metrics.

-- 1 for `/metrics` and nothing else: a scraper must not hold a token that could trim. Whoever administers may read them too.
ALTER TABLE tokens ADD COLUMN metrics INTEGER NOT NULL DEFAULT 0 CHECK (metrics IN (0, 1));

"""The parser of Prometheus' own Python client on our metrics: it reads all of them, and what it reads is in order."""

import math
import unittest

from prometheus_client.parser import text_string_to_metric_families
from server import Server


class Scrape(unittest.TestCase):
    def setUp(self):
        self.server = Server()
        self.addCleanup(self.server.stop)

    def scrape(self):
        status, content_type, body = self.server.request("GET", "/metrics")
        self.assertEqual((status, content_type), (200, "text/plain; version=0.0.4; charset=utf-8"))
        text = body.decode()
        return text, list(text_string_to_metric_families(text))

    def append(self, body):
        status, _, _ = self.server.request("POST", "/api/v1/a", body=body)
        return status

    def test_every_line_is_understood(self):
        text, families = self.scrape()
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        self.assertEqual(sum(len(family.samples) for family in families), len(lines))
        self.assertEqual(len({family.name for family in families}), text.count("# TYPE "))
        for family in families:
            self.assertIn(family.type, ("counter", "gauge", "histogram"), family.name)
            self.assertTrue(family.documentation, family.name)
            self.assertTrue(family.samples, family.name)
            for sample in family.samples:
                self.assertTrue(math.isfinite(sample.value) and sample.value >= 0, sample)
        series = [(sample.name, tuple(sample.labels.items())) for family in families for sample in family.samples]
        self.assertEqual(len(series), len(set(series)))

    def test_histograms_rise_and_end_with_their_count(self):
        for _ in range(5):
            self.assertEqual(self.append('[{"data":1},{"data":2},{"data":3}]'), 201)
        _, families = self.scrape()
        histograms = {family.name: family.samples for family in families if family.type == "histogram"}
        self.assertIn("evertail_append_seconds", histograms)
        for name, samples in histograms.items():
            buckets = [sample for sample in samples if sample.name.endswith("_bucket")]
            bounds = [float(bucket.labels["le"]) for bucket in buckets]
            counts = [bucket.value for bucket in buckets]
            self.assertEqual((bounds, bounds[-1]), (sorted(bounds), math.inf), name)
            self.assertEqual(counts, sorted(counts), name)
            (count,) = (sample.value for sample in samples if sample.name == f"{name}_count")
            self.assertEqual(counts[-1], count, name)
        sums = {sample.name: sample.value for samples in histograms.values() for sample in samples if not sample.labels}
        self.assertEqual(sums["evertail_batch_events_sum"], 15)
        self.assertEqual(sums["evertail_append_seconds_count"], 5)
        self.assertGreaterEqual(sums["evertail_append_seconds_sum"], sums["evertail_commit_seconds_sum"])
        self.assertGreater(sums["evertail_fsync_seconds_sum"], 0)

    def test_values_are_exact(self):
        self.assertEqual(self.append('{"data":"12345678"}'), 201)
        self.assertEqual(self.append("{"), 400)
        _, families = self.scrape()
        value = {
            (sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples
        }
        self.assertEqual(value["evertail_appended_events_total",], 1)
        self.assertEqual(value["evertail_appended_bytes_total",], 10)
        self.assertEqual(value["evertail_refusals_total", "json_invalid"], 1)
        self.assertEqual(value["evertail_last_seq",], 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)

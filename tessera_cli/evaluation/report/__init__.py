"""The report of an evaluation: report.json as plain values -> a page, pictures, and records for others."""

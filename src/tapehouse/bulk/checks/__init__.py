"""What is odd in rows that break no rule: statistical checks, sampling, grades. `docs/design/quality.md`."""

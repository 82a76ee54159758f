"""Speed, shown by benchmarks: the load generator, the random model, the table in README.md."""

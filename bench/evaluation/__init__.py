"""Query and judge a defense: views, batches, cost, verdicts, model checks, certificates of gradients."""

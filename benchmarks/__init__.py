"""What torchship takes, against what people did before: ratios of two sides in one run."""

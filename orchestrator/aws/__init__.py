"""The AWS adapter: the one place that knows boto3."""

"""The archive: sealed Parquet segments of each log and the manifest that names them."""

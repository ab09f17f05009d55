"""What any process needs: settings, logging, progress, retries, files. Nothing about logs."""

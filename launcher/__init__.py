"""The launcher: from flags and environment to running processes under supervisord."""

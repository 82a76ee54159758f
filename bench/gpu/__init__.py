"""What a GPU gives, beside what it could: ``make gpu-bench``. ``--device cpu`` is a trial of it."""

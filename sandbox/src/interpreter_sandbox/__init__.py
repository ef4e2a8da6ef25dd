"""The sandbox: `protocol` and `client` are light and for the api; `runtime` runs inside and is for nobody else."""

"""The operator: observe, plan, apply. It never touches Postgres and never runs user code."""

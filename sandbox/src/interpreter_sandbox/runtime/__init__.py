"""What runs inside a sandbox: the agent (PID 1), the zygote it starts and the worker that runs user code."""

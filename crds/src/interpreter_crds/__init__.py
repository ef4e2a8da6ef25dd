"""Power Interpreter's Kubernetes contract: names, conditions and one model file a kind.

Today only :mod:`~interpreter_crds.names` is here: the resources themselves, their models and the operator that
reconciles them are the next round. Nothing here imports a Kubernetes client, so the api and the operator can share it.
"""

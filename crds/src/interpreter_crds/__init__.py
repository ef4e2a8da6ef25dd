"""Power Interpreter's Kubernetes contract: names, conditions and one model file a kind.

The CRDs themselves are written by hand in this folder's parent; these models follow them. Nothing here
imports a Kubernetes client, so the api and the operator can share it.
"""

GROUP = "powerinterpreter.io"
VERSION = "v1alpha1"

"""The names of the custom resources. They are public: users type them, so they do not change within a version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

GROUP: Final = "powerinterpreter.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"


@dataclass(frozen=True, slots=True)
class Kind:
    """One namespaced resource: what stands in ``kind:``, in a URL, and after ``kubectl get``."""

    kind: str
    plural: str
    singular: str

    @property
    def crd_name(self) -> str:
        """The name of its CustomResourceDefinition."""
        return f"{self.plural}.{GROUP}"


CLASS: Final = Kind("InterpreterClass", "interpreterclasses", "interpreterclass")
SESSION: Final = Kind("InterpreterSession", "interpretersessions", "interpretersession")
JOB: Final = Kind("InterpreterJob", "interpreterjobs", "interpreterjob")
KINDS: Final = (CLASS, SESSION, JOB)

"""Whether a project may still spend: asked before anything is started on its account."""

from runglass.errors import api_error
from runglass.store.base import Project


def require_credit(project: Project) -> None:
    """Raises INSUFFICIENT_CREDITS where the project has a budget and nothing of it is left."""
    if project.is_spent:
        raise api_error(
            "INSUFFICIENT_CREDITS",
            f"the budget of project {project.org}/{project.name} is spent and nothing was started;"
            " an administrator of the server can raise it",
        )

"""medray: published medical-imaging systems, trained and used on Ray."""

from medray.errors import UserError

__version__ = "0.1.0"
__all__ = ["UserError", "__version__"]

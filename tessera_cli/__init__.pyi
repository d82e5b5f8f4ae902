from .api.areas import embed as embed
from .api.areas import fetch as fetch
from .api.areas import plan as plan
from .api.reading import encode as encode
from .api.reading import info as info
from .api.reading import load_model as load_model
from .api.reading import verify as verify
from .api.training import pretrain as pretrain
from .dpixels.dpixel import DPixels as DPixels
from .errors import CredentialsError as CredentialsError
from .errors import DiskFullError as DiskFullError
from .errors import IdentityError as IdentityError
from .errors import NothingToEmbedError as NothingToEmbedError
from .errors import PartialFailureError as PartialFailureError
from .errors import SourceRefusedError as SourceRefusedError
from .errors import SourceUnavailableError as SourceUnavailableError
from .errors import TesseraError as TesseraError
from .errors import TileError as TileError
from .errors import UsageError as UsageError
from .extent.aoi import Aoi as Aoi
from .extent.grid import Tile as Tile
from .extent.window import Window as Window
from .runs.results import Summary as Summary
from .runs.results import TileResult as TileResult

__version__: str

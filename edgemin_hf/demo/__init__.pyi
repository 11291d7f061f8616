from .modules import fetch_modules as fetch_modules
from .server import make_server as make_server
from .server import serve as serve

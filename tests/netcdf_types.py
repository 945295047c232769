"""The type an attribute has in a NetCDF file. netCDF4 answers the same text for NC_CHAR and NC_STRING, so the
library below it is asked.
"""

import ctypes
from typing import Any

import netCDF4

NC_CHAR, NC_UINT, NC_STRING = 2, 9, 12
_GLOBAL = -1
_LIBRARY = ctypes.CDLL(netCDF4._netCDF4.__file__)


def attribute_type(file: Any, name: str) -> int:
    """The NetCDF type number of a global attribute of an open `netCDF4.Dataset`."""
    found = ctypes.c_int()
    status = _LIBRARY.nc_inq_atttype(file._grpid, _GLOBAL, name.encode(), ctypes.byref(found))
    assert status == 0, f"nc_inq_atttype({name}) answers {status}"
    return found.value

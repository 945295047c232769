"""Dataset files to read: whole ones, and ones made item by item as other writers make them."""

from pathlib import Path
from typing import Any

import netCDF4
import numpy as np

from trainer.data.netcdf import write_dataset
from trainer.sparse import SparseDataset

SPARSE, BOOLEAN, INDEXED, WEIGHTED = 1, 2, 64, 128


def small_dataset(name: str = "gl_input", *, analog: bool = False) -> SparseDataset:
    values = np.array([0.5, 2.0, -1.0], np.float32) if analog else None
    return SparseDataset(name, 128, np.array([0, 2, 2, 3]), np.array([5, 1, 127], np.uint32), values)


def by_hand(path: Path, attributes: dict[str, Any], dimensions: dict[str, int], variables: dict[str, Any]) -> Path:
    """A file of dataset 0 as others write it; a variable is its dimension and values, text is NC_STRING."""
    with netCDF4.Dataset(path, "w") as file:
        for name, value in {"datasets": 1, **{f"{name}0": value for name, value in attributes.items()}}.items():
            if isinstance(value, str):
                file.setncattr_string(name, value)
            else:
                file.setncattr(name, np.uint32(value))
        for name, length in dimensions.items():
            file.createDimension(f"{name}0", length)
        for name, (dimension, values) in variables.items():
            endian = "big" if values.dtype.byteorder == ">" else "native"
            file.createVariable(f"{name}0", values.dtype, (f"{dimension}0",), endian=endian)[:] = values
    return path


def one_hot(path: Path, classes: list[int], *, number: int = 8, examples: int = 3, width: int = 4, **more: Any) -> Path:
    bits = BOOLEAN | INDEXED * ("index" in more) | WEIGHTED * ("dataWeight" in more)
    head = {"name": "d", "attributes": bits, "dataType": number, "dimensions": 1, "width": width}
    dimensions = {"examplesDim": examples, "uniqueExamplesDim": len(classes), "dataDim": len(classes)}
    variables = {name: ("examplesDim", values) for name, values in more.items()}
    return by_hand(path, head, dimensions, {"data": ("dataDim", np.array(classes, np.uint8)), **variables})


def broken(path: Path, variable: str, value: list[int]) -> Path:
    write_dataset(small_dataset(), path)
    with netCDF4.Dataset(path, "a") as file:
        file.variables[variable][:] = np.array(value, np.uint32)
    return path

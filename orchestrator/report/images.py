"""Images to choose from, for people as a table and for programs."""

from collections.abc import Sequence
from typing import Any

from orchestrator.imaging import Candidate


def images_text(found: Sequence[Candidate]) -> str:
    """One line an image, newest first, and under it what speaks against it."""
    lines: list[str] = []
    for one in found:
        image = one.image
        created = f"{image.created_at:%Y-%m-%d}" if image.created_at else "?"
        lines.append(
            f"{one.family:<17} {image.image_id:<21}  {created:<10}  {image.owner_id}  {image.ssh_user:<8}  {image.name}"
        )
        lines += [f"{'':<17} does not fit: {misfit}" for misfit in one.misfits]
    return "\n".join(lines) or "no image of these families"


def images_json(found: Sequence[Candidate]) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "images": [
            {
                "family": one.family,
                "id": one.image.image_id,
                "name": one.image.name,
                "owner": one.image.owner_id,
                "created_at": one.image.created_at.isoformat() if one.image.created_at else None,
                "ssh_user": one.image.ssh_user,
                "architecture": one.image.architecture,
                "root_size_gib": one.image.root_size_gib,
                "misfits": list(one.misfits),
            }
            for one in found
        ]
    }

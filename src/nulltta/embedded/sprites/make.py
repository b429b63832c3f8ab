"""Draw the sprite sheets from the SVG emoji of three icon packages on npm.

    npm install @iconify-json/noto@1.2.9 @iconify-json/twemoji@1.2.5 @iconify-json/fluent-emoji-flat@1.2.6
    pip install resvg_py
    python -m nulltta.embedded.sprites.make node_modules

The sheets are in the repository, so training needs none of this; run it to add an object or a style. Licences
and attributions of the three sets are in `embedded/NOTICE`.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

PACKAGES = {"noto": "noto", "twemoji": "twemoji", "fluent": "fluent-emoji-flat"}
SIZE = 96
COLUMNS = 10
HERE = Path(__file__).parent

# The first 24 are the vocabulary of `--size cpu`, chosen to differ from one another in outline or colour.
NAMES = """
cat-face dog-face panda fox penguin butterfly octopus red-apple banana strawberry carrot mushroom
pizza doughnut automobile rocket castle sun star rose soccer-ball balloon ghost robot
lion frog koala unicorn owl snail turtle crab tropical-fish lady-beetle hamster honeybee
pear lemon watermelon grapes cherries pineapple tomato avocado eggplant broccoli bread pretzel hamburger cookie
bicycle tractor airplane helicopter sailboat house tent volcano rainbow snowman fire
palm-tree cactus sunflower tulip basketball trophy guitar violin trumpet television key hammer crown umbrella
anchor alien skull bell
"""
OBJECTS = NAMES.split()


def svg(icons: Mapping[str, Any], name: str) -> str:
    """Return an icon of an iconify collection as a standalone SVG of SIZE pixels.

    Raises:
        KeyError: if the collection does not have it.
    """
    icon = icons["icons"][name]
    width = icon.get("width", icons.get("width", 16))
    height = icon.get("height", icons.get("height", 16))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{SIZE}" height="{SIZE}">{icon["body"]}</svg>'
    )


def sheet(icons: Mapping[str, Any], names: Sequence[str]) -> Image.Image:
    """Draw the icons `names` in rows of COLUMNS on a transparent RGBA sheet."""
    import resvg_py

    rows = -(-len(names) // COLUMNS)
    canvas = Image.new("RGBA", (COLUMNS * SIZE, rows * SIZE))
    for k, name in enumerate(names):
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg(icons, name)))
        sprite = Image.open(io.BytesIO(png)).convert("RGBA")
        canvas.paste(sprite, (k % COLUMNS * SIZE, k // COLUMNS * SIZE))
    return canvas


def main() -> None:
    """Write the sheets and their index."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("node_modules", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    for style, package in PACKAGES.items():
        icons = json.loads((args.node_modules / "@iconify-json" / package / "icons.json").read_text())
        sheet(icons, OBJECTS).save(args.out / f"{style}.png", optimize=True)
    index = {
        "size": SIZE,
        "columns": COLUMNS,
        "styles": list(PACKAGES),
        "objects": [name.replace("-", " ") for name in OBJECTS],
    }
    (args.out / "index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""``omni serve`` whose workers do not scale input images up to a million pixels, which takes a CPU a minute."""

import functools
import sys
from pathlib import Path

if __name__ == "__main__" and "--folder" in sys.argv:  # as a worker
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as module

    from runtime.ranks import serve

    whole = module.calculate_dimensions
    module.calculate_dimensions = lambda area, ratio: whole(64 * 64, ratio)
    serve.main(sys.argv[2:])
elif __name__ == "__main__":
    from omni_config.cli import app
    from runtime.serving import server

    server.serve = functools.partial(server.serve, worker=Path(__file__))
    app(["serve", "plan"])()

"""Models without a card of ours whose pipeline class the engine itself names."""

#: By the last part of the model's id in small letters, which may also be a folder on the way to a local copy.
PIPELINES = {
    "minimax-h3": "MiniMaxH3Pipeline",  # diffusion/models/minimax_h3/fasth3.py names the id
    "cosmos3-super-image2video-4step": "Cosmos3OmniDiffusersPipeline",  # as every Cosmos3: models/cosmos3/pipeline.py
}

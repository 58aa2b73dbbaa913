"""``omni serve``: the OpenAI images API over workers that stay warm. Importing it loads neither torch nor diffusers."""

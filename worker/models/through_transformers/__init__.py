"""Models without a declaration of ours: transformers' own modeling code, in one of two tiers.

``load`` chooses. Imported, and transformers with it, only when such a model is served.
"""

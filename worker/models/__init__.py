"""The models: one declaration per family over ``worker/layers``, found through ``registry``; others
through transformers.
"""

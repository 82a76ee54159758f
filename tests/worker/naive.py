"""One row at a time, in plain Python: what the processors must amount to."""

import math

import torch

from common.sampling import SamplingParameters


def processed(logits, parameters: SamplingParameters, prompt, output, stops, allowed=None):
    row = [float(value) for value in logits]
    for token in green((prompt + output)[-1], len(row)) if parameters.watermark else ():
        row[token] += 2.0
    for token, value in parameters.logit_bias.items():
        row[token] += value
    for token in set(prompt + output):
        factor = parameters.repetition_penalty
        row[token] = row[token] / factor if row[token] > 0 else row[token] * factor
    known = prompt + output
    for token in set(known):
        row[token] -= parameters.frequency_penalty * known.count(token) / len(known)
    for token in set(output):
        row[token] -= parameters.output_frequency_penalty * output.count(token)
        row[token] -= parameters.output_presence_penalty
    if allowed is not None:
        row = [value if token in allowed else -math.inf for token, value in enumerate(row)]
    elif len(output) < parameters.min_new_tokens:
        for token in stops:
            row[token] = -math.inf
    row = [value / parameters.temperature for value in row]
    row = likely(row, parameters.min_p)
    if parameters.top_k:
        threshold = sorted(row)[-min(parameters.top_k, len(row))]
        row = [value if value >= threshold else -math.inf for value in row]
    if parameters.top_p < 1.0:
        row = nucleus(row, parameters.top_p)
    if parameters.typical_p < 1.0:
        row = typical(row, parameters.typical_p)
    return row


def green(last_id, vocabulary):
    generator = torch.Generator().manual_seed(15485863 * last_id)
    return torch.randperm(vocabulary, generator=generator)[: vocabulary // 2].tolist()


def softmax(row):
    most = max(row)
    weights = [math.exp(value - most) for value in row]
    total = sum(weights)
    return [weight / total for weight in weights]


def logprobs(row):
    return [math.log(p) if p > 0 else -math.inf for p in softmax(row)]


def likely(row, p):
    weights = softmax(row)
    least = max(weights) * p
    return [
        value if weight >= least else -math.inf for value, weight in zip(row, weights, strict=True)
    ]


def nucleus(row, p):
    """TGI's words: ascending, drop while the cumulative probability is at most 1 - p, keep one."""
    weights = softmax(row)
    ascending = sorted(range(len(row)), key=lambda token: (row[token], -token))
    kept, mass = list(row), 0.0
    for token in ascending[:-1]:
        mass += weights[token]
        if mass <= 1 - p:
            kept[token] = -math.inf
    return kept


def typical(row, p):
    weights = softmax(row)
    entropy = -sum(w * math.log(w) for w in weights if w > 0)
    distance = [abs(-math.log(w) - entropy) if w > 0 else math.inf for w in weights]
    mass = 0.0
    for token in sorted(range(len(row)), key=lambda token: distance[token]):
        mass += weights[token]
        last = distance[token]
        if mass >= p:
            break
    return [value if d <= last else -math.inf for value, d in zip(row, distance, strict=True)]

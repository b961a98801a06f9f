"""One training step of the networks of src/models/resnet.ts in TensorFlow's own Python API (tf.function, oneDNN on).

The same layers, batch, weight decay and momentum as ours. Last line on standard output: one JSON object with CPU seconds
(all threads) and wall seconds a step, one entry a step.

usage: tensorflow_step.py 20|56|50 BATCH SIZE STEPS WARMUP
"""
import json
import os
import sys
import time

os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = ""
import tensorflow as tf  # noqa: E402

depth, batch, size, steps, warmup = (int(argument) for argument in sys.argv[1:6])
weights, normalisation = [], []


def kernel(k, c_in, c_out):
    weights.append(tf.Variable(tf.random.normal([k, k, c_in, c_out], stddev=(2 / (k * k * c_in)) ** 0.5)))
    return weights[-1]


def conv(c_in, c_out, k=3, stride=1):
    w = kernel(k, c_in, c_out)
    return lambda x: tf.nn.conv2d(x, w, stride, "SAME")


def norm(channels, relu=True):
    scale, offset = tf.Variable(tf.ones([channels])), tf.Variable(tf.zeros([channels]))
    mean, variance = (tf.Variable(v, trainable=False) for v in (tf.zeros([channels]), tf.ones([channels])))
    normalisation.extend([scale, offset])

    def apply(x):
        y, m, v = tf.compat.v1.nn.fused_batch_norm(x, scale, offset, epsilon=1e-5, is_training=True)
        mean.assign(0.9 * mean + 0.1 * m)
        variance.assign(0.9 * variance + 0.1 * v)
        return tf.nn.relu(y) if relu else y

    return apply


def basic_v2(c_in, c_out, stride, first):
    n1, c1, n2, c2 = norm(c_in), conv(c_in, c_out, 3, stride), norm(c_out), conv(c_out, c_out)
    shortcut = conv(c_in, c_out, 1, stride) if first else None

    def apply(x):
        h = n1(x)
        return c2(n2(c1(h))) + (shortcut(h) if first else x)

    return apply


def bottleneck(c_in, width, stride, first):
    c1, n1, c2, n2 = conv(c_in, width, 1), norm(width), conv(width, width, 3, stride), norm(width)
    c3, n3 = conv(width, 4 * width, 1), norm(4 * width, relu=False)
    shortcut = (conv(c_in, 4 * width, 1, stride), norm(4 * width, relu=False)) if first else None

    def apply(x):
        skip = shortcut[1](shortcut[0](x)) if first else x
        return tf.nn.relu(n3(c3(n2(c2(n1(c1(x)))))) + skip)

    return apply


def network():
    if depth == 50:
        layers, c_in = [conv(3, 64), norm(64)], 64
        for stage, (width, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)]):
            for block in range(blocks):
                layers.append(bottleneck(c_in, width, 2 if stage and not block else 1, block == 0))
                c_in = 4 * width
    else:
        layers, c_in = [conv(3, 16)], 16
        for stage, width in enumerate([16, 32, 64]):
            for block in range((depth - 2) // 6):
                layers.append(basic_v2(c_in, width, 2 if stage and not block else 1, block == 0))
                c_in = width
        layers.append(norm(64))
    w, b = tf.Variable(tf.random.normal([c_in, 10], stddev=(2 / c_in) ** 0.5)), tf.Variable(tf.zeros([10]))
    weights.append(w)
    normalisation.append(b)

    def apply(x):
        for layer in layers:
            x = layer(x)
        return tf.reduce_mean(x, [1, 2]) @ w + b

    return apply


net = network()
variables = weights + normalisation
velocities = [tf.Variable(tf.zeros_like(v)) for v in variables]


@tf.function
def step(x, y):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, net(x)))
    for index, (v, m, g) in enumerate(zip(variables, velocities, tape.gradient(loss, variables))):
        m.assign(0.9 * m + g + (2e-4 * v if index < len(weights) else 0))
        v.assign_sub(0.01 * m)
    return loss


images = tf.random.stateless_normal([batch, size, size, 3], [1, 2])
labels = tf.range(batch) % 10
for _ in range(warmup):
    step(images, labels).numpy()
cpu, wall = [], []
for _ in range(steps):
    c, t = time.process_time(), time.perf_counter()
    step(images, labels).numpy()
    cpu.append(time.process_time() - c)
    wall.append(time.perf_counter() - t)
print(json.dumps({"peer": f"TensorFlow {tf.__version__}, tf.function, oneDNN", "cpuSeconds": cpu, "wallSeconds": wall,
                  "parameters": sum(int(tf.size(v)) for v in variables)}))

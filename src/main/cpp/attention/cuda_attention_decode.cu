#include "attention/device.h"
namespace molfuse {
void attention_decode_device(const AttentionProblem&, DeviceCall&) { unsupported("attention_decode"); }
}

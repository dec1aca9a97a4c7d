// What an overlap leaves of a score, for soft non-maximum suppression on both devices.
#pragma once

#include "core/exponential.h"
#include "core/macros.h"
#include "core/rounding.h"
#include "kernels/suppression.h"

namespace deformops {

// Scalar is float or double; scores and overlaps are numbers of that type or vectors of them.
template <class Scalar>
struct DecayRule {
  Decay decay;
  Scalar threshold;
  Scalar sigma;

  explicit DecayRule(const SoftSuppression& rule)
      : decay(rule.decay),
        threshold(rounded_down<Scalar>(rule.hard.threshold)),
        sigma(static_cast<Scalar>(rule.sigma)) {}

  // A weight of 0 leaves 0, also of infinity; an overlap of NaN leaves the score as it is.
  template <class C>
  DEFORMOPS_INLINE C decayed(C score, C overlap) const {
    const C one = C{} + Scalar(1);
    const C weight = weight_of(overlap, one);
    const C result = product(score, weight);
    return weight == C{} ? C{} : result;
  }

 private:
  template <class C>
  DEFORMOPS_INLINE C weight_of(C overlap, C one) const {
    if (decay == Decay::kGaussian) {
      const C exponent = product(overlap, overlap) / (C{} + sigma);
      const C weight = exponential_of_minus<Scalar>(exponent);
      return overlap > C{} ? weight : one;
    }
    const C rest = one - overlap;
    const C left = decay == Decay::kLinear ? (rest > C{} ? rest : C{}) : C{};
    return overlap > C{} + threshold ? left : one;
  }
};

}  // namespace deformops

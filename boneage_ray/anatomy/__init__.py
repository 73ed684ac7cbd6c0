"""Facts of growth and cephalometry: ages, stages, landmarks and the rules of cervical maturation."""

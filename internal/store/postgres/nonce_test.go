package postgres_test

import (
	"testing"

	"tallyhook/internal/store/storetest"
)

// TestOneNonceOnTwoReplicasAtOnce: of two replicas that are given one token with
// two bodies in the same moment, one takes its body and the other refuses.
func TestOneNonceOnTwoReplicasAtOnce(t *testing.T) {
	t.Parallel()
	w := storetest.New(t, open)
	storetest.NonceAtOnce(w, 300, w.Store, replica(w))
}

package event

// Nonce is what a sender uses for one request only, with a digest of the
// events that came with it. It is for schemes that sign the nonce and not the
// body: who has seen a request on its way could put other events under its
// signature. The same events under the same nonce are a sender that tries again.
type Nonce struct {
	Key    Hash // of source and value; zero: there is none
	Digest Hash // of the events
}

// NonceOf is the nonce of a source's request that brought the events, which
// must have their scope.
func NonceOf(source, value string, events []Event) Nonce {
	parts := make([]string, 0, len(events))
	for i := range events {
		h := events[i].Identity()
		parts = append(parts, string(h[:]))
	}
	return Nonce{Key: HashOf("nonce", source, value), Digest: HashOf(parts...)}
}

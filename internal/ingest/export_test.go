package ingest

// Queued counts the events in the line.
func (c *Committer) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, l := range c.tenants {
		n += l.events
	}
	return n
}

// BulkWaits tells whether a part of the spool waits behind live requests.
func (c *Committer) BulkWaits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bulk != nil
}
